"""The engines: their options, the words of a recipe's command, where they listen, and what they answer."""
