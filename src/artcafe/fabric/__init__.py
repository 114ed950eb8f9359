"""NATS: accounts, streams, group commit and readers. Nothing else in ArtCafe imports nats."""
