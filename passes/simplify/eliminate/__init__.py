"""Rules that remove nodes: outputs stay equal bit for bit."""
