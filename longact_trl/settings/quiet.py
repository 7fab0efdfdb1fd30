"""What libraries log that nobody who runs this can act on: it is not shown. All else is."""

import logging
import re
import warnings


UNHELPFUL = {
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",  # of 4-bit weights, whoever uses none
    "vllm.triton_utils.importing": "Triton is installed, but `triton.backends`",  # on a CPU it is not needed
    "DeepSpeed": "Setting accelerator to CPU",  # it is installed, and the run has asked for a CPU
}
"""Name of a logger, and how the message begins."""
UNHELPFUL_WARNINGS = ("`torch.distributed.reduce_op` is deprecated",)  # vLLM looks at all names of a module
"""How a message of `warnings` begins."""


def quiet() -> None:
    """Leave these messages out. Called before the libraries are imported, which is when they log them."""
    for name, beginning in UNHELPFUL.items():
        logger = logging.getLogger(name)
        if not any(isinstance(kept, _Leave) for kept in logger.filters):
            logger.addFilter(_Leave(beginning))
    for beginning in UNHELPFUL_WARNINGS:
        warnings.filterwarnings("ignore", re.escape(beginning))


class _Leave(logging.Filter):
    def __init__(self, beginning: str):
        super().__init__()
        self.beginning = beginning

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self.beginning)
