"""`longact inspect`: where Q, K and V are strong."""
