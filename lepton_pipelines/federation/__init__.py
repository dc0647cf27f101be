"""Sums across organisations that show nothing but the total."""

import os

# TLS 1.3 or nothing: the suite that 1.2 would have to use is for a kind of key that no certificate here has. gRPC reads
# this once, when it is first imported, which is why it stands here.
os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384")
