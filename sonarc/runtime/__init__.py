"""Fast inference: prompts to audio with a loaded model package. Neither transformers nor diffusers on this path."""
