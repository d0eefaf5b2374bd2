"""A model to look into: loading, the architecture map, running, generating."""
