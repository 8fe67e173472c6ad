"""Low rank: a linear layer becomes two smaller ones."""
