"""The IAM policy that a spec needs: the permissions of each stage of its build, and no others."""
