"""Keys, certificates and how an organisation is admitted."""
