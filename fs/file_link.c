// SPDX-License-Identifier: MIT
/*
 * file_link: exe, cwd, root and fd/K: the guest's own texts, which mean paths in
 * the guest; and the list of a process's open files.
 */
#include <errno.h>

#include "fs/node.h"

ssize_t hmfs_link_readlink(struct hmfs *fs, const struct hmfs_node *node, char *buf, size_t size)
{
	struct hm_who who;
	int rc;

	rc = hmfs_node_who(fs, node, &who);
	if (rc < 0)
		return rc;
	return hm_client_read_link(fs->client, who, (enum HYPER_LINK)node->row->arg, buf, size);
}

ssize_t hmfs_fd_readlink(struct hmfs *fs, const struct hmfs_node *node, char *buf, size_t size)
{
	struct hm_who who;
	int rc;

	rc = hmfs_node_who(fs, node, &who);
	if (rc < 0)
		return rc;
	return hm_client_read_fd_name(fs->client, who, node->fd, buf, size);
}

int hmfs_fd_stat(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret)
{
	struct hm_who who;
	struct hm_fd fd;
	int rc;

	rc = hmfs_node_who(fs, node, &who);
	if (rc == 0)
		rc = hm_client_read_fd(fs->client, who, node->fd, &fd);
	if (rc == 0)
		ret->st_mode = fd.mode;
	return rc;
}

int hmfs_fd_list(struct hmfs *fs, const struct hmfs_node *node, hmfs_fill_fn fill, void *arg)
{
	g_autoptr(GArray) fds = NULL;
	struct hm_who who;
	struct stat st;
	int rc;

	rc = hmfs_node_who(fs, node, &who);
	if (rc == 0)
		rc = hmfs_node_stat(fs, node, &st);
	if (rc == 0)
		rc = hm_client_list_fds(fs->client, who, &fds);
	for (guint i = 0; rc == 0 && i < fds->len; i++) {
		const struct hm_fd *fd = &g_array_index(fds, struct hm_fd, i);
		char name[16];

		st.st_mode = fd->mode;
		st.st_nlink = 1;
		g_snprintf(name, sizeof(name), "%u", fd->fd);
		if (fill(arg, name, &st) != 0)
			break;
	}
	return rc;
}
