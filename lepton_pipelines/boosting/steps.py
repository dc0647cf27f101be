"""What a training asks of the rows, shard by shard.

Each step is a small picklable object; `run(shard)` does the work where the rows are and returns an int64 vector
that adds up over shards and then, through `Sums`, over parties. A training runs, in this order:

- `edges.CountCells` as often as the search for bin edges needs, then `BinRows` once;
- the base score's steps;
- `StartTraining` once: margins are set, the first gradients computed; returns their exponents;
- for every tree `StartTree` (root histogram), `GrowNodes` once a level (rows follow the splits, the smaller
  children are counted), `FinishTree` (leaves are added to the margins);
- after every round `FinishRound`: metric vectors and the exponents of the next gradients in one vector.
"""
