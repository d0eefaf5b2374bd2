"""The store: activations on disk, one safetensors file per site and layer, filled in place and resumed after a kill."""
