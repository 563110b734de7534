"""Jobs of a sweep that differ only in numbers, trained as one batched model: what ``hydra/launcher=stacked`` starts."""
