"""The commands with which people manage their tenants over REST."""
