/* deltazoo help TOPIC. */
#include <stdio.h>
#include <string.h>

#include "cli/help.h"
#include "config/recipe.h"
#include "config/recipe_text.h"

typedef struct topic {
    const char *name, *text;
} topic;

static const topic TOPICS[] = {
    {"recipes", "A recipe says which tensors are lossy, and how. The default (structure) takes\n"
                "the matrices of repeated blocks. 'deltazoo recipes' lists all that are built in.\n"
                "To start your own:\n\n"
                "  deltazoo recipes --print llama > mine.yaml\n"
                "  deltazoo compress zoo.yaml -o zoo.h5 --recipe mine.yaml\n\n"
                "--set KEY=VALUE overrides one key. Stored recipes have all of them:\n\n"
                "  deltazoo info zoo.h5 --task math\n\n"
                "The keys:"},
    {"quality", "Lossy tensors come back with noise. How much is said before (plan), by the job\n"
                "(compress), of an archive (info), and measured against the original:\n\n"
                "  deltazoo plan zoo.yaml\n"
                "  deltazoo compare zoo.h5 --task math --base base --finetuned math\n\n"
                "'noise share' there is the share of the true change that is noise or lost: 0 is\n"
                "exact, at 1 nothing of it is left. With --max-noise X compare exits with code 1\n"
                "above X. Your own evaluation decides with\n\n"
                "  deltazoo tune zoo.yaml --eval 'python3 score.py {model} {task}' \\\n"
                "      --max-drop 0.5% -o zoo.h5\n\n"
                "(deltazoo tune --help). --recipe lossless keeps every bit. A restored model that\n"
                "is not the original says so in deltazoo.json; compress does not take it again.\n"},
    {"cluster", "Every command runs under mpirun or srun, on any number of ranks and nodes; its\n"
                "output does not depend on that number. One rank a core, 2 GB of memory each:\n\n"
                "  srun -n 64 deltazoo compress zoo.yaml -o zoo.h5 --report job.json\n\n"
                "A job that is stopped (exit code 75) goes on where it was when the same command\n"
                "is given again. jobs/*.sbatch requeue by themselves; see src/doc/cluster.md.\n"
                "'deltazoo doctor' tells what would be slow or unsafe on this machine.\n"},
};

int dz_is_topic(const char *name) {
    for (size_t i = 0; i < sizeof TOPICS / sizeof *TOPICS; i++) {
        if (strcmp(TOPICS[i].name, name) == 0) return 1;
    }
    return 0;
}

int dz_print_topic(const char *name) {
    for (size_t i = 0; i < sizeof TOPICS / sizeof *TOPICS; i++) {
        if (strcmp(TOPICS[i].name, name) != 0) continue;
        puts(TOPICS[i].text);
        for (int k = 0; i == 0 && k < DZ_NKEYS; k++) {
            char range[DZ_KEY_RANGE_TEXT];
            printf("  %-14s %-44s (%s)\n", dz_recipe_key_name(k), dz_recipe_key_range(k, range), dz_recipe_key_usual(k));
        }
        return 1;
    }
    return 0;
}
