"""LoRA adapters for chat models, trained on pairs of prompts and answers."""
