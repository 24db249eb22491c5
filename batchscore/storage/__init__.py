"""One file layer: a local disk, S3 and other stores, with retries and conditional puts."""
