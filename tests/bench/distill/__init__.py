"""What distillation wins back, and what was compared for running the IR by gradient."""
