"""System prompts: a small share of training conversations carries one, so that they are nothing strange."""

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a careful assistant. Be brief.",
    "Answer in plain English.",
    "You are here to help people.",
    "Be kind and take your time.",
)
SYSTEM_HELD_OUT = ("You are a kind assistant.", "Be careful and brief.")
