#ifndef DZ_BASE_VERSION_H
#define DZ_BASE_VERSION_H

#define DZ_VERSION "0.1.0"

#endif
