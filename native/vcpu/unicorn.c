/* SPDX-License-Identifier: GPL-2.0-or-later */
/* unicorn.c - loads Unicorn's functions at run time: the build needs nothing of it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vcpu/vcpu.h"

/*
 * Load the library at `path`. It stays loaded for the life of the process, because it registers
 * things of its own that dlclose would leave behind.
 */
int ldfs_unicorn_load(const char *path, struct ldfs_uc_api *api, char *why, size_t why_size)
{
	static const struct {
		const char *name;
		size_t offset;
	} functions[] = {
		{ "uc_version", offsetof(struct ldfs_uc_api, version) },
		{ "uc_open", offsetof(struct ldfs_uc_api, open) },
		{ "uc_close", offsetof(struct ldfs_uc_api, close) },
		{ "uc_ctl", offsetof(struct ldfs_uc_api, ctl) },
		{ "uc_mem_map_ptr", offsetof(struct ldfs_uc_api, mem_map_ptr) },
		{ "uc_mmio_map", offsetof(struct ldfs_uc_api, mmio_map) },
		{ "uc_hook_add", offsetof(struct ldfs_uc_api, hook_add) },
		{ "uc_reg_write", offsetof(struct ldfs_uc_api, reg_write) },
		{ "uc_reg_read", offsetof(struct ldfs_uc_api, reg_read) },
		{ "uc_emu_start", offsetof(struct ldfs_uc_api, emu_start) },
		{ "uc_emu_stop", offsetof(struct ldfs_uc_api, emu_stop) },
		{ "uc_strerror", offsetof(struct ldfs_uc_api, strerror) },
	};
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	unsigned int major = 0, minor = 0;

	if (!library) {
		snprintf(why, why_size, "%s", dlerror());
		return -ELIBACC;
	}
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		void *function = dlsym(library, functions[i].name);

		if (!function) {
			snprintf(why, why_size, "%s has no %s", path, functions[i].name);
			dlclose(library);
			return -ELIBACC;
		}
		memcpy((char *)api + functions[i].offset, &function, sizeof(function));
	}
	api->version(&major, &minor);
	if (major != LDFS_UC_API_MAJOR) {
		snprintf(why, why_size, "%s is Unicorn %u.%u, not 2", path, major, minor);
		return -ELIBACC;
	}
	return 0;
}
