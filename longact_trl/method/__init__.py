"""The paper, in its order: projections, magnitude, masks, row-sparse gradients, their application, frozen rows."""
