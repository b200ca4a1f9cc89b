"""The kernel matrix: what each kernel was predicted to run, and what the loader reached there."""
