"""The stages of packaging/gpu-proof."""
