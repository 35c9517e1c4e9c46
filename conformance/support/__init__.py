"""What the tests share: the server under test, its clients, images, a registry, and a look at the host."""
