"""Parts of the network that lost their comparison, each behind the interface of the part that won; configs name them."""
