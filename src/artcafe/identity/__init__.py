"""Who a person is, proven by an identity provider."""
