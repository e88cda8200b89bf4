"""IAM's language: what EC2 and S3 can be asked to tell apart, documents, and what a document allows."""
