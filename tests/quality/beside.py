#!/usr/bin/python3
"""Method auto of two programs on trained zoos: accuracy at equal ratios.

usage: beside.py DIR FAMILY OTHER [--ratios 200,400,800] [--seeds 3] [--split test]       DIR as train.py --out; OTHER: a build of an older version

A line for each ratio: mean accuracy over tasks and seeds, its standard deviation over seeds, and the real ratio, of OTHER and of DELTAZOO (build/deltazoo)."""
import argparse
import os
import statistics

import experiment


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("family")
    parser.add_argument("other")
    parser.add_argument("--ratios", default="200,400,800")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    programs = {"other": os.path.abspath(args.other), "this": experiment.DELTAZOO}
    root = os.path.join(args.dir, args.family)
    print("| family | ratio | " + " | ".join(f"{p}: accuracy | real ratio" for p in programs) + " |")
    print("|---|---|" + "---|---|" * len(programs))
    for ratio in args.ratios.split(","):
        cells = []
        for program in programs.values():
            experiment.DELTAZOO = program
            runs = [experiment.measure(root, args.family, ("method=auto", f"target_ratio={ratio}"), seed, args.split) for seed in range(args.seeds)]
            means = [statistics.mean(accuracies.values()) for accuracies, _, _ in runs]
            spread = statistics.stdev(means) if len(means) > 1 else 0
            cells.append(f"{statistics.mean(means):.2f} ± {spread:.2f} | {statistics.mean(r for _, _, r in runs):.1f}x")
        print(f"| {args.family} | {ratio}x | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
