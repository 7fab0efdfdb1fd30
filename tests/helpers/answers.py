"""Completions with tags."""


def tagged(answer, think="because"):
    return f"<think>{think}</think>\n<answer>{answer}</answer>"


def chat(text):
    return [{"role": "assistant", "content": text}]
