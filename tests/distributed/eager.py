"""Run by both ranks: a recipe whose vLLM computes as it is told, without a minute of compiling for a few tokens."""

import runpy
import sys
from functools import partial

import trl.generation.vllm_generation as generation


generation.LLM = partial(generation.LLM, enforce_eager=True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
