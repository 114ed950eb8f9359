"""Commands that manage a tenant over REST, as a member or as one of its agents."""
