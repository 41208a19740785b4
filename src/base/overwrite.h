/* What is in the place of an output, and may it be replaced? One answer for every command that writes: only what this program made itself,
 * of the same kind, is ever replaced. Links are followed. Python's reader (src/python) has the same rules. */
#ifndef DZ_BASE_OVERWRITE_H
#define DZ_BASE_OVERWRITE_H

#include "base/error.h"

typedef enum dz_target {
    DZ_TARGET_NONE,    /* nothing there */
    DZ_TARGET_EMPTY,   /* a file of 0 bytes, a folder with nothing in it */
    DZ_TARGET_ARCHIVE, /* an archive, also a damaged or repacked one */
    DZ_TARGET_VECTOR,  /* what export wrote: safetensors or HDF5 */
    DZ_TARGET_MODEL,   /* a safetensors file that restore wrote and marked */
    DZ_TARGET_REPORT,  /* of compress --report */
    DZ_TARGET_PLOT,    /* SVG or PNG */
    DZ_TARGET_LIST,    /* of scan --list */
    DZ_TARGET_FILE,    /* any other file: not ours */
    DZ_TARGET_FOLDER,
    DZ_TARGET_SPECIAL /* a device, pipe or socket */
} dz_target;

/* The text by which safetensors files of ours are known, in their metadata; followed by a text with the kind. */
#define DZ_MARK_KEY "deltazoo"
#define DZ_MARK_VECTOR "vector"
#define DZ_MARK_RESTORED "restored"

/* Ours in SVG and PNG. */
#define DZ_PLOT_MARK "made by deltazoo"

/* The first line of a list of zoos (config/zoo_list.h). */
#define DZ_LIST_HEAD "# deltazoo list: manifest, archive\n"

/* The root attribute `format` of a vector in HDF5; an archive's is "deltazoo". */
#define DZ_HDF5_VECTOR "deltazoo-vector"

/* Looks at the first bytes. What cannot be read is not ours. */
dz_target dz_target_of(const char *path);

/* May the file `path` be written by a command whose outputs are of kind `own`? With `force`, one of that kind is replaced; reports and
 * plots need no force; nothing else is ever replaced. DZ_EUSAGE says what is there and what to do, also where the folder is missing. */
dz_rc dz_overwrite_check(const char *path, dz_target own, int force, dz_error *err);

/* May `path`, an unfinished file under a name of ours (NAME.partial), be removed and made anew? It must be empty, of kind `own`, or HDF5
 * that its writer has not closed. */
dz_rc dz_overwrite_check_partial(const char *path, dz_target own, dz_error *err);

#endif
