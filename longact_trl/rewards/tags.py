"""The four tags of a completion (Sec. 3.3: r_fmt and r_ans look for them), defined once."""

THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"
