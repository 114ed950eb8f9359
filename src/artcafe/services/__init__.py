"""The operations of ArtCafe, shared by REST and the gateway: REST and the gateway call the same functions."""
