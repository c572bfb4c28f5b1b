"""Speed of training steps and of picture loading, here and in other libraries."""
