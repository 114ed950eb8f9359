"""Authentication of people by an identity provider."""
