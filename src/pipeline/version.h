#ifndef DZ_PIPELINE_VERSION_H
#define DZ_PIPELINE_VERSION_H

#define DZ_VERSION "0.1.0"

#endif
