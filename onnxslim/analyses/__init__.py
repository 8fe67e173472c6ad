"""Facts about a model that passes share: computed once, forgotten when a change stales them."""
