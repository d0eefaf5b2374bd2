"""`refusalkit steer`: a model with a vector and without it, side by side, in a chat or over a set of prompts."""
