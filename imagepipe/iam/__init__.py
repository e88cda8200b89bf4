"""IAM's policy language: facts about actions, documents, and the evaluation of documents."""
