"""Outside models and small trained ones, with their data and metrics; see manifest.toml."""
