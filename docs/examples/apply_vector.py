"""Use a vector file of refusalkit without refusalkit: safetensors, torch and transformers are all it needs."""

import argparse
import json
from contextlib import contextmanager

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer


@contextmanager
def steered(model, file):
    """Add the vectors of a file to a Llama-like model: everything inside the `with` block, `generate` included."""
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["steering-vector"])
        vectors = {layer: opened.get_tensor(f"layer.{layer}") * about["coefficient"] for layer in about["layers"]}
    assert about["positions"] == ["all"] and about["phase"] == "both", "it acts on some tokens only: use refusalkit"

    def entering(vector):  # resid_pre of layer L: what enters block L, counted from 0
        return lambda _block, args: (args[0] + vector.to(args[0]), *args[1:])

    def leaving(vector):  # resid_post of layer L: what leaves block L; a tuple in transformers 4
        def hook(_block, _args, out):
            return (out[0] + vector.to(out[0]), *out[1:]) if isinstance(out, tuple) else out + vector.to(out)

        return hook

    blocks, handles = model.model.layers, []
    for layer, vector in vectors.items():
        if about["site"] == "resid_pre":
            handles.append(blocks[layer].register_forward_pre_hook(entering(vector)))
        else:
            assert about["site"] == "resid_post", "it acts inside a block: use refusalkit"
            handles.append(blocks[layer].register_forward_hook(leaving(vector)))
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("vector")
    parser.add_argument("prompt")
    chosen = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(chosen.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    chat = [{"role": "user", "content": chosen.prompt}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode(), steered(model, chosen.vector):
        written = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
