"""What ArtCafe does, independent of the door that asked: REST and the gateway call the same functions."""
