/*
 * A microphone for tests: an ALSA capture device that plays a file, in user space.
 *
 *   pcm_type.harkd_test_mic { lib "/path/to/libasound_module_pcm_harkd_test_mic.so" }
 *   pcm.testmic {
 *     type harkd_test_mic
 *     file "speech.raw"     # s16le, interleaved, at the rate and channel count below
 *     rate 48000            # the only rate that the device has
 *     channels 2            # the only channel count that it has
 *     loop 0                # 1: again and again; 0: once, then silence
 *     ctl "/path/to/ctl"    # optional: a file that holds one of the words below
 *   }
 *
 * Sample n of the file is due n / rate seconds of CLOCK_MONOTONIC after the first start of an open
 * device. That time is written, in nanoseconds, to "<ctl>.started". A reader that is late by more
 * than the buffer loses samples, as with real hardware.
 *
 * Words in the control file (another word, an empty or a missing file: play):
 *
 *   unplug   every call fails with ENODEV, opening too
 *   stall    no more samples come; time stands still until the word changes
 *   zero     samples come and all are zero, as from a muted microphone
 *   busy     opening fails with EBUSY; a device that is open goes on
 *   deny     opening fails with EACCES; a device that is open goes on
 *   xrun     one overrun is reported (EPIPE); another one after the word has changed
 *
 * Build: gcc -shared -fPIC -DPIC -o libasound_module_pcm_harkd_test_mic.so harkd_test_mic.c -lasound
 */

#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)

enum control { PLAY, UNPLUG, STALL, ZERO, XRUN, BUSY, DENY };

struct mic {
	snd_pcm_ioplug_t io;
	int timer_fd;
	const uint8_t *sound;   /* the mapped file */
	size_t sound_bytes;
	char *control_path;
	unsigned int rate_hz;
	unsigned int channels;
	int loop;

	int64_t origin_ns;      /* when sample 0 played, or 0 before the first start */
	int64_t stalled_at_ns;  /* when the stall began, or 0 */
	uint64_t start_frame;   /* of the file, at the latest start */
	int xrun_reported;
};

static int64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static enum control read_control(const struct mic *mic)
{
	char word[16] = "";
	int fd;

	if (!mic->control_path)
		return PLAY;
	fd = open(mic->control_path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return PLAY;
	if (read(fd, word, sizeof(word) - 1) < 0)
		word[0] = '\0';
	close(fd);
	word[strcspn(word, " \r\n")] = '\0';

	if (!strcmp(word, "unplug"))
		return UNPLUG;
	if (!strcmp(word, "stall"))
		return STALL;
	if (!strcmp(word, "zero"))
		return ZERO;
	if (!strcmp(word, "xrun"))
		return XRUN;
	if (!strcmp(word, "busy"))
		return BUSY;
	if (!strcmp(word, "deny"))
		return DENY;
	return PLAY;
}

/* Under another name first, so that a reader never sees half a number. */
static void write_started(const struct mic *mic)
{
	char path[4096], new_path[4096];
	FILE *file;

	if (!mic->control_path)
		return;
	snprintf(path, sizeof(path), "%s.started", mic->control_path);
	snprintf(new_path, sizeof(new_path), "%s.started.new", mic->control_path);
	file = fopen(new_path, "we");
	if (!file) {
		SNDERR("cannot write %s: %s", new_path, strerror(errno));
		return;
	}
	fprintf(file, "%lld\n", (long long)mic->origin_ns);
	fclose(file);
	rename(new_path, path);
}

static int64_t frames_due(const struct mic *mic)
{
	int64_t until_ns = mic->stalled_at_ns ? mic->stalled_at_ns : monotonic_ns();
	int64_t played_ns = until_ns - mic->origin_ns;

	return played_ns / NS_PER_S * mic->rate_hz +
	       played_ns % NS_PER_S * mic->rate_hz / NS_PER_S;
}

/* A stall moves the origin by its length, so that no samples are lost to it. */
static void follow_stall(struct mic *mic, int stalled)
{
	if (stalled && !mic->stalled_at_ns) {
		mic->stalled_at_ns = monotonic_ns();
	} else if (!stalled && mic->stalled_at_ns) {
		mic->origin_ns += monotonic_ns() - mic->stalled_at_ns;
		mic->stalled_at_ns = 0;
	}
}

static int mic_prepare(snd_pcm_ioplug_t *io)
{
	return read_control(io->private_data) == UNPLUG ? -ENODEV : 0;
}

static int mic_start(snd_pcm_ioplug_t *io)
{
	struct mic *mic = io->private_data;
	/* Twice a period: a wake-up that comes just before the period's last sample costs half of
	   one, not a whole one. */
	int64_t tick_ns = NS_PER_S * (int64_t)io->period_size / mic->rate_hz / 2;
	struct itimerspec ticks = {
		.it_value = { tick_ns / NS_PER_S, tick_ns % NS_PER_S },
		.it_interval = { tick_ns / NS_PER_S, tick_ns % NS_PER_S },
	};

	if (read_control(mic) == UNPLUG)
		return -ENODEV;
	if (mic->origin_ns) {
		mic->start_frame = frames_due(mic);
	} else {
		mic->origin_ns = monotonic_ns();
		write_started(mic);
	}
	return timerfd_settime(mic->timer_fd, 0, &ticks, NULL) < 0 ? -errno : 0;
}

static int mic_stop(snd_pcm_ioplug_t *io)
{
	struct mic *mic = io->private_data;
	struct itimerspec never = { { 0, 0 }, { 0, 0 } };

	return timerfd_settime(mic->timer_fd, 0, &never, NULL) < 0 ? -errno : 0;
}

/* Returns where the device writes next, counted from the latest start, in the ring buffer. */
static snd_pcm_sframes_t mic_pointer(snd_pcm_ioplug_t *io)
{
	struct mic *mic = io->private_data;
	enum control control = read_control(mic);
	uint64_t written;

	if (control == UNPLUG)
		return -ENODEV;
	follow_stall(mic, control == STALL);
	if (control != XRUN) {
		mic->xrun_reported = 0;
	} else if (!mic->xrun_reported) {
		mic->xrun_reported = 1;
		return -EPIPE;
	}
	written = frames_due(mic) - mic->start_frame;
	if (written > io->appl_ptr + io->buffer_size)
		return -EPIPE;
	return written % io->buffer_size;
}

static void copy_sound(const struct mic *mic, uint64_t frame, uint8_t *to, size_t frames)
{
	size_t frame_bytes = sizeof(int16_t) * mic->channels;
	uint64_t sound_frames = mic->sound_bytes / frame_bytes;

	while (frames > 0) {
		uint64_t from = mic->loop ? frame % sound_frames : frame;
		size_t run = frames;

		if (from >= sound_frames) {
			memset(to, 0, run * frame_bytes);
		} else {
			if (run > sound_frames - from)
				run = sound_frames - from;
			memcpy(to, mic->sound + from * frame_bytes, run * frame_bytes);
		}
		to += run * frame_bytes;
		frame += run;
		frames -= run;
	}
}

/*
 * Fills `size` frames. With mmap access, alsa-lib asks again for frames that the application has
 * not taken yet, at every snd_pcm_avail_update(), and in two parts where the ring buffer wraps:
 * which frames of the file they are follows from the application's pointer, not from earlier calls.
 */
static snd_pcm_sframes_t mic_transfer(snd_pcm_ioplug_t *io, const snd_pcm_channel_area_t *areas,
				      snd_pcm_uframes_t offset, snd_pcm_uframes_t size)
{
	struct mic *mic = io->private_data;
	uint8_t *to = (uint8_t *)areas->addr + (areas->first + areas->step * offset) / 8;
	enum control control = read_control(mic);
	uint64_t frame = mic->start_frame + io->appl_ptr;

	if (control == UNPLUG)
		return -ENODEV;
	if (io->access == SND_PCM_ACCESS_MMAP_INTERLEAVED) {
		snd_pcm_uframes_t at = io->appl_ptr % io->buffer_size;

		frame += (offset + io->buffer_size - at) % io->buffer_size;
	}
	if (control == ZERO)
		memset(to, 0, size * sizeof(int16_t) * mic->channels);
	else
		copy_sound(mic, frame, to, size);
	return size;
}

static int mic_poll_revents(snd_pcm_ioplug_t *io, struct pollfd *fds, unsigned int count,
			    unsigned short *revents)
{
	struct mic *mic = io->private_data;
	snd_pcm_sframes_t available;
	uint64_t ticks;

	if (count != 1)
		return -EINVAL;
	if (read(mic->timer_fd, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN)
		return -errno;
	*revents = fds[0].revents & ~POLLIN;
	if (read_control(mic) == UNPLUG) {
		*revents |= POLLERR | POLLNVAL;
		return 0;
	}
	available = snd_pcm_avail_update(io->pcm);
	if (available < 0)
		*revents |= POLLERR;
	else if ((snd_pcm_uframes_t)available >= io->period_size)
		*revents |= POLLIN;
	return 0;
}

static void free_mic(struct mic *mic)
{
	if (mic->sound)
		munmap((void *)mic->sound, mic->sound_bytes);
	if (mic->timer_fd >= 0)
		close(mic->timer_fd);
	free(mic->control_path);
	free(mic);
}

static int mic_close(snd_pcm_ioplug_t *io)
{
	free_mic(io->private_data);
	return 0;
}

static const snd_pcm_ioplug_callback_t callbacks = {
	.start = mic_start,
	.stop = mic_stop,
	.pointer = mic_pointer,
	.transfer = mic_transfer,
	.close = mic_close,
	.prepare = mic_prepare,
	.poll_revents = mic_poll_revents,
};

static int map_sound(struct mic *mic, const char *path)
{
	struct stat status;
	void *sound;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &status) < 0) {
		int error = errno;

		SNDERR("cannot open %s: %s", path, strerror(error));
		if (fd >= 0)
			close(fd);
		return -error;
	}
	mic->sound_bytes = status.st_size;
	if (mic->sound_bytes < sizeof(int16_t) * mic->channels) {
		SNDERR("%s is empty", path);
		close(fd);
		return -EINVAL;
	}
	sound = mmap(NULL, mic->sound_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (sound == MAP_FAILED)
		return -errno;
	mic->sound = sound;
	return 0;
}

static int set_hw_constraints(struct mic *mic)
{
	static const unsigned int access[] = {
		SND_PCM_ACCESS_RW_INTERLEAVED, SND_PCM_ACCESS_MMAP_INTERLEAVED
	};
	static const unsigned int format[] = { SND_PCM_FORMAT_S16_LE };
	struct { int type; unsigned int min, max; } ranges[] = {
		{ SND_PCM_IOPLUG_HW_CHANNELS, mic->channels, mic->channels },
		{ SND_PCM_IOPLUG_HW_RATE, mic->rate_hz, mic->rate_hz },
		{ SND_PCM_IOPLUG_HW_PERIOD_BYTES, 64, 1 << 18 },
		{ SND_PCM_IOPLUG_HW_PERIODS, 2, 64 },
		{ SND_PCM_IOPLUG_HW_BUFFER_BYTES, 256, 1 << 20 },
	};
	int error;

	error = snd_pcm_ioplug_set_param_list(&mic->io, SND_PCM_IOPLUG_HW_ACCESS, 2, access);
	if (error >= 0)
		error = snd_pcm_ioplug_set_param_list(&mic->io, SND_PCM_IOPLUG_HW_FORMAT, 1, format);
	for (size_t i = 0; error >= 0 && i < sizeof(ranges) / sizeof(ranges[0]); i++)
		error = snd_pcm_ioplug_set_param_minmax(&mic->io, ranges[i].type, ranges[i].min,
							ranges[i].max);
	return error;
}

/* Takes `mic`, which is freed if this fails. */
static int create_mic(snd_pcm_t **pcmp, const char *name, snd_pcm_stream_t stream, int mode,
		      struct mic *mic, const char *file)
{
	enum control control = read_control(mic);
	int error = control == UNPLUG ? -ENODEV : control == BUSY ? -EBUSY :
		    control == DENY ? -EACCES : 0;

	if (error < 0)
		goto failed;
	error = map_sound(mic, file);
	if (error < 0)
		goto failed;
	mic->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (mic->timer_fd < 0) {
		error = -errno;
		goto failed;
	}

	mic->io.version = SND_PCM_IOPLUG_VERSION;
	mic->io.name = "harkd test microphone";
	mic->io.callback = &callbacks;
	mic->io.private_data = mic;
	mic->io.poll_fd = mic->timer_fd;
	mic->io.poll_events = POLLIN;
	error = snd_pcm_ioplug_create(&mic->io, name, stream, mode);
	if (error < 0)
		goto failed;
	error = set_hw_constraints(mic);
	if (error < 0) {
		snd_pcm_ioplug_delete(&mic->io); /* calls mic_close() */
		return error;
	}
	*pcmp = mic->io.pcm;
	return 0;

failed:
	free_mic(mic);
	return error;
}

SND_PCM_PLUGIN_DEFINE_FUNC(harkd_test_mic)
{
	snd_config_iterator_t i, next;
	const char *file = NULL, *control_path = NULL;
	long rate_hz = 48000, channels = 2, loop = 0;
	struct mic *mic;
	int error;

	(void)root;
	if (stream != SND_PCM_STREAM_CAPTURE)
		return -EINVAL;
	snd_config_for_each(i, next, conf) {
		snd_config_t *field = snd_config_iterator_entry(i);
		const char *id;

		if (snd_config_get_id(field, &id) < 0)
			continue;
		if (!strcmp(id, "comment") || !strcmp(id, "type") || !strcmp(id, "hint"))
			error = 0;
		else if (!strcmp(id, "file"))
			error = snd_config_get_string(field, &file);
		else if (!strcmp(id, "ctl"))
			error = snd_config_get_string(field, &control_path);
		else if (!strcmp(id, "rate"))
			error = snd_config_get_integer(field, &rate_hz);
		else if (!strcmp(id, "channels"))
			error = snd_config_get_integer(field, &channels);
		else if (!strcmp(id, "loop"))
			error = snd_config_get_integer(field, &loop);
		else
			error = -EINVAL;
		if (error < 0) {
			SNDERR("unknown or ill-typed field %s", id);
			return error;
		}
	}
	if (!file || rate_hz <= 0 || channels <= 0) {
		SNDERR("file, rate and channels must be given");
		return -EINVAL;
	}

	mic = calloc(1, sizeof(*mic));
	if (!mic)
		return -ENOMEM;
	mic->timer_fd = -1;
	mic->rate_hz = rate_hz;
	mic->channels = channels;
	mic->loop = loop != 0;
	mic->control_path = control_path ? strdup(control_path) : NULL;
	return create_mic(pcmp, name, stream, mode, mic, file);
}

SND_PCM_PLUGIN_SYMBOL(harkd_test_mic);
