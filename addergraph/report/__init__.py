"""What a person reads about a network: findings, summaries, views of the graph, the ops' page."""
