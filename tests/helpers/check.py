"""For longact check."""

from collections import namedtuple

from longact_trl.quickstart import MODEL


GOOD_CONFIG = {
    "model_name_or_path": str(MODEL),
    "mixture": "data.yaml",
    "use_cpu": True,
    "per_device_train_batch_size": 16,
    "num_generations": 8,
    "max_completion_length": 40,
    "gradient_accumulation_steps": 1,
    "attn_implementation": "sdpa",
    "save_total_limit": 1,
    "report_to": "none",
}


DISK_USAGE = namedtuple("DiskUsage", "total used free")
