"""What the tests share: small models, engines that are not there, references."""
