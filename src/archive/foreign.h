/* What other tools put into an archive: attributes of other types than ours. HDF5's library decodes all attributes of an object when one is
 * opened, so they are checked before it sees them. */
#ifndef DZ_ARCHIVE_FOREIGN_H
#define DZ_ARCHIVE_FOREIGN_H

#include "base/mem.h"

#define DZ_FOREIGN_NAME 257

/* An attribute message of any plain type that h5py and other tools write: numbers, texts of fixed and variable length, booleans and other
 * enumerations, compounds, arrays, references, opaque bytes; of up to 32 dimensions, or empty. `name` gets its name. */
int dz_foreign_attribute_ok(dz_view *v, char name[DZ_FOREIGN_NAME]);

/* An object directly below /tasks that is no task: its header, of HDF5's newer version, is whole (every block has its checksum), and has
 * none of the names that a task's has: index, payload, record. A damaged task is not taken for one. */
int dz_foreign_object(int fd, const char *path, uint64_t file_size, uint64_t at);

#endif
