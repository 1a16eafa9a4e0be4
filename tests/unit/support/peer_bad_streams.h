/* SPDX-License-Identifier: MIT */
/*
 * What a source may do wrong, each a change of one step of a script, and what must come of it.
 *
 * X(name, shape, how, step, statements that write to `w`, words of the error, outcome)
 * outcome: FAILED: the guest never ran; PAUSED: it runs here; COMPLETED: this is no mistake.
 */
/* clang-format off */
#define AT_END(block)   PEER_PAGES(block##_PAGES)
#define ZERO(name, page) stream_put_record(w, STREAM_RAM_ZERO, name, PEER_PAGES(page))
#define HEAD(value)     stream_put_be64(w, value)
#define ZERO_RUN(name, page, count) stream_put_run(w, STREAM_RAM_ZERO, name, PEER_PAGES(page), count)
#define PAGE_RUN(name, page, count) script_put_run(w, name, page, count)
#define STEP(name)      script_put_step(w, STEP_##name)
#define PACKAGED_OF(length) \
    (stream_put_u8(w, STREAM_COMMAND), stream_put_be16(w, STREAM_COMMAND_PACKAGED), \
     stream_put_be16(w, 4), stream_put_be32(w, length))
#define ADVISE_OF(sizes, target) \
    (stream_put_u8(w, STREAM_COMMAND), stream_put_be16(w, STREAM_COMMAND_POSTCOPY_ADVISE), \
     stream_put_be16(w, 16), stream_put_be64(w, sizes), stream_put_be64(w, target))
#define DISCARD_OF(version, end, start, length) \
    (stream_put_u8(w, STREAM_COMMAND), stream_put_be16(w, STREAM_COMMAND_POSTCOPY_RAM_DISCARD), \
     stream_put_be16(w, 23), stream_put_u8(w, version), stream_put_name(w, "ram0"), \
     stream_put_u8(w, end), stream_put_be64(w, start), stream_put_be64(w, length))
#define SUBSECTION(name, version) \
    (stream_put_u8(w, STREAM_SUBSECTION), stream_put_name(w, name), stream_put_be32(w, version))
#define NOTHING ((void)w)
#define ZEROES(count) stream_put_bytes(w, (uint8_t[count]){0}, count)

#define OPENING_LIST(X) \
    X(magic_wrong, PRECOPY, INSTEAD, HEADER, (stream_put_be32(w, 0x12345678), stream_put_be32(w, 3)), "magic is 0x12345678", FAILED) \
    X(version_2, PRECOPY, INSTEAD, HEADER, (stream_put_be32(w, STREAM_MAGIC), stream_put_be32(w, 2)), "version is 2, expected 3", FAILED) \
    X(version_4, PRECOPY, INSTEAD, HEADER, (stream_put_be32(w, STREAM_MAGIC), stream_put_be32(w, 4)), "version is 4, expected 3", FAILED) \
    X(header_missing, PRECOPY, INSTEAD, HEADER, NOTHING, "magic is", FAILED) \
    X(configuration_missing, PRECOPY, INSTEAD, CONFIGURATION, NOTHING, "decode configuration: type is 0x08", FAILED) \
    X(configuration_twice, PRECOPY, AFTER, CONFIGURATION, stream_put_configuration(w, PEER_MACHINE), "type is 0x07", FAILED) \
    X(machine_other, PRECOPY, INSTEAD, CONFIGURATION, stream_put_configuration(w, "other-1.0"), "machine type received is 'other-1.0' and local is '" PEER_MACHINE "'", FAILED) \
    X(machine_prefix, PRECOPY, INSTEAD, CONFIGURATION, stream_put_configuration(w, "faultline"), "machine type received is 'faultline'", FAILED) \
    X(machine_empty, PRECOPY, INSTEAD, CONFIGURATION, (stream_put_u8(w, 7), stream_put_be32(w, 0)), "length of the machine name is 0", FAILED) \
    X(machine_of_256, PRECOPY, INSTEAD, CONFIGURATION, (stream_put_u8(w, 7), stream_put_be32(w, 256)), "length of the machine name is 256", FAILED) \
    X(machine_of_4g, PRECOPY, INSTEAD, CONFIGURATION, (stream_put_u8(w, 7), stream_put_be32(w, 0xffffffff)), "length of the machine name is 4294967295", FAILED) \
    X(subsection_unknown, PRECOPY, AFTER, CONFIGURATION, SUBSECTION("configuration/foo", 1), "subsection name is configuration/foo", FAILED) \
    X(subsection_version, PRECOPY, AFTER, CONFIGURATION, SUBSECTION("configuration/uuid", 2), "version of subsection configuration/uuid is 2", FAILED) \
    X(capabilities_none, PRECOPY, AFTER, CONFIGURATION, (SUBSECTION("configuration/capabilities", 1), stream_put_be32(w, 0)), "count of capabilities is 0", FAILED) \
    X(capabilities_4g, PRECOPY, AFTER, CONFIGURATION, (SUBSECTION("configuration/capabilities", 1), stream_put_be32(w, 0xffffffff)), "count of capabilities", FAILED) \
    X(capability_unknown, PRECOPY, AFTER, CONFIGURATION, (SUBSECTION("configuration/capabilities", 1), stream_put_be32(w, 1), stream_put_name(w, "foo")), "capability name is foo", FAILED) \
    X(capability_on, PRECOPY, AFTER, CONFIGURATION, (SUBSECTION("configuration/capabilities", 1), stream_put_be32(w, 1), stream_put_name(w, "mapped-ram")), "x-ignore-shared or mapped-ram on", FAILED) \
    X(uuid, PRECOPY, AFTER, CONFIGURATION, (SUBSECTION("configuration/uuid", 1), stream_put_be64(w, 1), stream_put_be64(w, 2)), "", COMPLETED) \
    X(element_unknown, PRECOPY, BEFORE, START, stream_put_u8(w, 0x55), "decode element: type is 0x55", FAILED) \
    X(element_footer, PRECOPY, BEFORE, START, stream_put_footer(w, 1), "decode element: type is 0x7e", FAILED) \
    X(element_subsection, PRECOPY, BEFORE, START, SUBSECTION("ram/foo", 1), "type is 0x05", FAILED) \
    X(element_description, PRECOPY, BEFORE, START, script_put_step(w, STEP_DESCRIPTION), "element 0x06 has no place", FAILED) \
    X(section_unknown, PRECOPY, BEFORE, START, stream_put_start(w, STREAM_START, 1, "foo", 0, 4), "unknown section 'foo' 0", FAILED) \
    X(section_name_empty, PRECOPY, BEFORE, START, (stream_put_u8(w, STREAM_START), stream_put_be32(w, 1), stream_put_u8(w, 0)), "is empty", FAILED) \
    X(ram_instance_1, PRECOPY, INSTEAD, START, stream_put_start(w, STREAM_START, 1, "ram", 1, 4), "unknown section 'ram' 1", FAILED) \
    X(ram_version_3, PRECOPY, INSTEAD, START, stream_put_start(w, STREAM_START, 1, "ram", 0, 3), "unsupported version 3 for 'ram'", FAILED) \
    X(ram_version_5, PRECOPY, INSTEAD, START, stream_put_start(w, STREAM_START, 1, "ram", 0, 5), "unsupported version 5 for 'ram'", FAILED) \
    X(ram_as_device, PRECOPY, INSTEAD, START, stream_put_start(w, STREAM_FULL, 1, "ram", 0, 4), "ram", FAILED) \
    X(part_before_start, PRECOPY, BEFORE, START, stream_put_part(w, STREAM_PART, 1), "section 1 was never started", FAILED) \
    X(end_before_start, PRECOPY, BEFORE, START, stream_put_part(w, STREAM_END, 1), "section 1 was never started", FAILED) \
    X(part_unknown, PRECOPY, INSTEAD, PASS, stream_put_part(w, STREAM_PART, 99), "section 99 was never started", FAILED) \
    X(end_unknown, PRECOPY, INSTEAD, END, stream_put_part(w, STREAM_END, 0xffffffff), "section 4294967295 was never started", FAILED) \
    X(start_twice, PRECOPY, BEFORE, PASS, script_put_step(w, STEP_START), "'ram' was started twice", FAILED) \
    X(beat_missing, PRECOPY, INSTEAD, HELLO, stream_put_ping(w, STREAM_HELLO | STREAM_FEATURE_HEARTBEAT), "has not told its heartbeat-timeout", FAILED) \
    X(beat_in_two_ways, PRECOPY, INSTEAD, HELLO, (stream_put_ping(w, STREAM_HELLO | STREAM_FEATURE_HEARTBEAT), stream_put_ping(w, STREAM_PING_BEAT | 5000), stream_put_ping(w, STREAM_PING_BEAT | 904)), "told its heartbeat-timeout in two ways", FAILED) \
    X(total_0, PRECOPY, INSTEAD, TOTAL, stream_put_mem_size(w, 0), "total of MEM_SIZE", FAILED) \
    X(total_greater, PRECOPY, INSTEAD, TOTAL, stream_put_mem_size(w, AT_END(PEER_RAM0) * 2), "announces more memory", FAILED) \
    X(total_of_2_63, PRECOPY, INSTEAD, TOTAL, stream_put_mem_size(w, 1ull << 63), "announces more memory", FAILED) \
    X(total_less, PRECOPY, INSTEAD, TOTAL, stream_put_mem_size(w, 4096), "longer than their total", FAILED) \
    X(total_missing, PRECOPY, INSTEAD, TOTAL, NOTHING, "not a known combination", FAILED) \
    X(total_twice, PRECOPY, BEFORE, LIST_EOS, script_put_step(w, STEP_TOTAL), "the block list has no place here", FAILED) \
    X(total_in_part, PRECOPY, BEFORE, PAGES, script_put_step(w, STEP_TOTAL), "the block list has no place here", FAILED) \
    X(block_unknown, PRECOPY, INSTEAD, BLOCK0, stream_put_block(w, "foo", AT_END(PEER_RAM0), 0), "unknown ramblock 'foo'", FAILED) \
    X(block_name_empty, PRECOPY, INSTEAD, BLOCK0, stream_put_u8(w, 0), "block name is empty", FAILED) \
    X(block_name_binary, PRECOPY, INSTEAD, BLOCK0, stream_put_name(w, "ram\n"), "has byte 0x0a", FAILED) \
    X(block_longer, PRECOPY, INSTEAD, BLOCK0, stream_put_block(w, "ram0", AT_END(PEER_RAM0) + 4096, 0), "size mismatch: ram0", FAILED) \
    X(block_shorter, PRECOPY, INSTEAD, BLOCK1, stream_put_block(w, "ram1", 4096, 0), "size mismatch: ram1", FAILED) \
    X(block_of_0, PRECOPY, INSTEAD, BLOCK1, stream_put_block(w, "ram1", 0, 0), "length of block ram1 is 0x0", FAILED) \
    X(block_of_1, PRECOPY, INSTEAD, BLOCK1, stream_put_block(w, "ram1", 1, 0), "length of block ram1 is 0x1", FAILED) \
    X(block_twice, PRECOPY, INSTEAD, BLOCK1, script_put_step(w, STEP_BLOCK0), "longer than their total", FAILED) \
    X(block_missing, PRECOPY, INSTEAD, BLOCK1, NOTHING, "block name is empty", FAILED) \
    X(block_page_size, PRECOPY, INSTEAD, BLOCK0, stream_put_block(w, "ram0", AT_END(PEER_RAM0), 0x200000), "", FAILED) \
    X(page_in_start, PRECOPY, BEFORE, LIST_EOS, ZERO("ram0", 0), "before the end of the block list", FAILED) \
    X(list_footer_missing, PRECOPY, INSTEAD, LIST_FOOTER, NOTHING, "decode footer of section ram: type is 0x02", FAILED)

#define RECORD_LIST(X) \
    X(flags_0, PRECOPY, BEFORE, PAGES, HEAD(0), "flags 0x0 in channel main", FAILED) \
    X(flags_full, PRECOPY, BEFORE, PAGES, HEAD(1), "flags 0x1 in channel main", FAILED) \
    X(flags_hook, PRECOPY, BEFORE, PAGES, HEAD(0x80), "flags 0x80 in channel main", FAILED) \
    X(flags_0x400, PRECOPY, BEFORE, PAGES, HEAD(0x400), "flags 0x400 in channel main", FAILED) \
    X(flags_0x800, PRECOPY, BEFORE, PAGES, HEAD(0x800), "flags 0x800 in channel main", FAILED) \
    X(flags_zero_and_page, PRECOPY, BEFORE, PAGES, HEAD(0xa), "flags 0xa in channel main", FAILED) \
    X(flags_continue_alone, PRECOPY, BEFORE, PAGES, HEAD(0x20), "flags 0x20 in channel main", FAILED) \
    X(flags_eos_continue, PRECOPY, BEFORE, PAGES, HEAD(0x30), "flags 0x30 in channel main", FAILED) \
    X(eos_with_offset, PRECOPY, BEFORE, PAGES, HEAD(0x1010), "offset of EOS in channel main is 0x1000", FAILED) \
    X(xbzrle, PRECOPY, BEFORE, PAGES, (HEAD(0x40), stream_put_name(w, "ram0"), stream_put_u8(w, 1), stream_put_be16(w, 1), stream_put_u8(w, 0)), "need xbzrle, compress or multifd", FAILED) \
    X(xbzrle_too_long, PRECOPY, BEFORE, PAGES, (HEAD(0x40), stream_put_name(w, "ram0"), stream_put_u8(w, 1), stream_put_be16(w, 4097)), "length of XBZRLE", FAILED) \
    X(compress, PRECOPY, BEFORE, PAGES, (HEAD(0x100), stream_put_name(w, "ram0"), stream_put_be32(w, 1), stream_put_u8(w, 0)), "need xbzrle, compress or multifd", FAILED) \
    X(compress_of_4g, PRECOPY, BEFORE, PAGES, (HEAD(0x100), stream_put_name(w, "ram0"), stream_put_be32(w, 0xffffffff)), "length of COMPRESS_PAGE", FAILED) \
    X(multifd_flush, PRECOPY, BEFORE, PAGES, stream_put_multifd_flush(w), "need xbzrle, compress or multifd", FAILED) \
    X(continue_first, PRECOPY, BEFORE, PAGES, ZERO(NULL, 0), "channel main continues a block before it named one", FAILED) \
    X(page_of_unknown_block, PRECOPY, BEFORE, PAGES, ZERO("foo", 0), "page of block 'foo', which is not here", FAILED) \
    X(continue_of_unknown_block, PRECOPY, AFTER, PAGES, (ZERO("foo", 0), ZERO(NULL, 0)), "block 'foo'", FAILED) \
    X(page_at_the_end, PRECOPY, BEFORE, PAGES, ZERO("ram0", PEER_RAM0_PAGES), "lies past the end of block 'ram0'", FAILED) \
    X(page_at_the_end_of_ram1, PRECOPY, BEFORE, PAGES, script_put_page(w, "ram1", PEER_RAM1_PAGES), "lies past the end of block 'ram1'", FAILED) \
    X(page_at_2_63, PRECOPY, BEFORE, PAGES, ZERO("ram0", 1ull << 51), "lies past the end of block 'ram0'", FAILED) \
    X(page_last_of_all, PRECOPY, BEFORE, PAGES, ZERO("ram0", (1ull << 52) - 1), "lies past the end of block 'ram0'", FAILED) \
    X(page_twice_in_precopy, PRECOPY, BEFORE, PAGES, (ZERO("ram0", 5), ZERO(NULL, 5), script_put_page(w, NULL, 5)), "", COMPLETED) \
    X(run_twice_in_precopy, PRECOPY, BEFORE, PAGES, (PAGE_RUN("ram0", 5, 40), ZERO_RUN(NULL, 0, 200), PAGE_RUN(NULL, 44, 2), ZERO_RUN("ram1", 0, 30)), "", COMPLETED) \
    X(run_to_the_end, PRECOPY, BEFORE, PAGES, (PAGE_RUN("ram0", PEER_RAM0_PAGES - 9, 9), ZERO_RUN("ram1", PEER_RAM1_PAGES - 2, 2)), "", COMPLETED) \
    X(run_not_agreed, PRECOPY, INSTEAD, HELLO, (stream_put_ping(w, STREAM_HELLO | STREAM_FEATURE_COMMIT), STEP(START), STEP(TOTAL), STEP(BLOCK0), STEP(BLOCK1), STEP(LIST_EOS), STEP(LIST_FOOTER), STEP(PASS), PAGE_RUN("ram0", 0, 2)), "flags 0x408 in channel main are not a known combination", FAILED) \
    X(run_without_return_path, PRECOPY, INSTEAD, RETURN_PATH, (STEP(START), STEP(TOTAL), STEP(BLOCK0), STEP(BLOCK1), STEP(LIST_EOS), STEP(LIST_FOOTER), STEP(PASS), ZERO_RUN("ram0", 0, 2)), "RUN 0x400 was not agreed on", FAILED) \
    X(run_of_0, PRECOPY, BEFORE, PAGES, (HEAD(0x408), stream_put_name(w, "ram0"), stream_put_be32(w, 0)), "count of pages of the run at offset 0x0 in channel main is 0", FAILED) \
    X(run_of_1, PRECOPY, BEFORE, PAGES, (HEAD(0x402), stream_put_name(w, "ram0"), stream_put_be32(w, 1)), "in channel main is 1, expected 2", FAILED) \
    X(run_of_257, PRECOPY, BEFORE, PAGES, (HEAD(0x408), stream_put_name(w, "ram0"), stream_put_be32(w, 257)), "in channel main is 257", FAILED) \
    X(run_of_4g, PRECOPY, BEFORE, PAGES, (HEAD(0x408), stream_put_name(w, "ram0"), stream_put_be32(w, 0xffffffff)), "in channel main is 4294967295", FAILED) \
    X(run_of_eos, PRECOPY, BEFORE, PAGES, HEAD(0x410), "flags 0x410 in channel main", FAILED) \
    X(run_in_start, PRECOPY, BEFORE, LIST_EOS, PAGE_RUN("ram0", 0, 2), "before the end of the block list", FAILED) \
    X(run_of_unknown_block, PRECOPY, BEFORE, PAGES, PAGE_RUN("foo", 0, 2), "page of block 'foo', which is not here", FAILED) \
    X(run_continue_first, PRECOPY, BEFORE, PAGES, PAGE_RUN(NULL, 0, 2), "channel main continues a block before it named one", FAILED) \
    X(run_past_the_end, PRECOPY, BEFORE, PAGES, PAGE_RUN("ram0", PEER_RAM0_PAGES - 8, 9), "lies past the end of block 'ram0'", FAILED) \
    X(run_of_zeros_past_the_end, PRECOPY, BEFORE, PAGES, ZERO_RUN("ram1", PEER_RAM1_PAGES - 1, 2), "lies past the end of block 'ram1'", FAILED) \
    X(run_at_2_63, PRECOPY, BEFORE, PAGES, ZERO_RUN("ram0", 1ull << 51, 2), "lies past the end of block 'ram0'", FAILED) \
    X(run_past_2_64, PRECOPY, BEFORE, PAGES, ZERO_RUN("ram0", (1ull << 52) - 2, 3), "ends past the greatest offset", FAILED) \
    X(fill_not_0, PRECOPY, BEFORE, PAGES, (HEAD(0x2), stream_put_name(w, "ram0"), stream_put_u8(w, 1)), "fill of ZERO at offset 0x0 in channel main is 0x01", FAILED) \
    X(footer_missing, PRECOPY, INSTEAD, PASS_FOOTER, NOTHING, "decode footer of section ram: type is 0x03", FAILED) \
    X(footer_of_other, PRECOPY, INSTEAD, PASS_FOOTER, stream_put_footer(w, 2), "section id is 2, expected 1", FAILED) \
    X(pages_missing, PRECOPY, INSTEAD, PAGES, ZERO("ram0", 0), "639 pages never did", FAILED) \
    X(last_page_missing, PRECOPY, INSTEAD, PAGES, (script_put_zeroes(w, "ram0", 0, PEER_RAM0_PAGES), script_put_zeroes(w, "ram1", 0, PEER_RAM1_PAGES - 1)), "1 pages never did", FAILED) \
    X(eof_before_start, PRECOPY, BEFORE, START, stream_put_u8(w, 0), "640 pages never did", FAILED) \
    X(eof_before_pages, PRECOPY, BEFORE, PASS, stream_put_u8(w, 0), "640 pages never did", FAILED) \
    X(second_end, PRECOPY, AFTER, END, script_put_step(w, STEP_END), "", COMPLETED) \
    X(device_unknown, PRECOPY, INSTEAD, STATE, script_put_device(w, "foo", 5, 5), "load device 'foo' 0: no such device", FAILED) \
    X(device_too_long, PRECOPY, INSTEAD, STATE, script_put_device(w, PEER_DEVICE, PEER_STATE_LIMIT + 1, 9), "length of the device state is 4097", FAILED) \
    X(device_of_4g, PRECOPY, INSTEAD, STATE, script_put_device(w, PEER_DEVICE, 0xffffffff, 9), "length of the device state is 4294967295", FAILED) \
    X(device_longest, PRECOPY, BEFORE, STATE, script_put_device(w, PEER_DEVICE, PEER_STATE_LIMIT, PEER_STATE_LIMIT), "", COMPLETED) \
    X(device_shorter, PRECOPY, INSTEAD, STATE, script_put_device(w, PEER_DEVICE, 4, 5), "decode footer of section " PEER_DEVICE, FAILED) \
    X(device_empty, PRECOPY, BEFORE, STATE, script_put_device(w, PEER_DEVICE, 0, 0), "", COMPLETED)

#define COMMAND_LIST(X) \
    X(command_0, PRECOPY, BEFORE, START, script_put_raw_command(w, 0, 0), "decode command: number is 0", FAILED) \
    X(command_12, PRECOPY, BEFORE, START, script_put_raw_command(w, 12, 0), "decode command: number is 12", FAILED) \
    X(command_65535, PRECOPY, BEFORE, START, script_put_raw_command(w, 65535, 0), "decode command: number is 65535", FAILED) \
    X(return_path_of_1, PRECOPY, BEFORE, START, script_put_raw_command(w, 1, 1), "OPEN_RETURN_PATH: length is 1", FAILED) \
    X(return_path_twice, PRECOPY, BEFORE, START, script_put_raw_command(w, 1, 0), "", COMPLETED) \
    X(ping_of_3, PRECOPY, BEFORE, START, script_put_raw_command(w, 2, 3), "PING: length is 3", FAILED) \
    X(ping_of_65535, PRECOPY, BEFORE, START, script_put_raw_command(w, 2, 65535), "PING: length is 65535", FAILED) \
    X(ping_without_return_path, PRECOPY, INSTEAD, RETURN_PATH, NOTHING, "PING received with no return path", FAILED) \
    X(listen_outside, POSTCOPY, BEFORE, PACKAGED, script_put_raw_command(w, 4, 0), "POSTCOPY_LISTEN came outside a package", FAILED) \
    X(run_outside, POSTCOPY, BEFORE, PACKAGED, script_put_raw_command(w, 5, 0), "POSTCOPY_RUN came outside a package", FAILED) \
    X(run_in_precopy, PRECOPY, BEFORE, EOF, script_put_raw_command(w, 5, 0), "POSTCOPY_RUN came outside a package", FAILED) \
    X(colo, PRECOPY, BEFORE, START, script_put_raw_command(w, 8, 0), "ENABLE_COLO is not supported", FAILED) \
    X(resume_in_precopy, PRECOPY, BEFORE, START, script_put_raw_command(w, 9, 0), "", COMPLETED) \
    X(switchover_start, PRECOPY, BEFORE, END, script_put_raw_command(w, 11, 0), "", COMPLETED) \
    X(bitmap_name_longer, PRECOPY, BEFORE, START, script_put_raw_command(w, 10, 1), "RECV_BITMAP: length is 1", FAILED) \
    X(advise_of_8, POSTCOPY, INSTEAD, ADVISE, script_put_raw_command(w, 3, 8), "POSTCOPY_ADVISE: length is 8", FAILED) \
    X(advise_of_17, POSTCOPY, INSTEAD, ADVISE, script_put_raw_command(w, 3, 17), "POSTCOPY_ADVISE: length is 17", FAILED) \
    X(advise_short, POSTCOPY, INSTEAD, ADVISE, script_put_raw_command(w, 3, 0), "enabled here but not at the source", FAILED) \
    X(advise_short_in_precopy, PRECOPY, BEFORE, START, script_put_raw_command(w, 3, 0), "", COMPLETED) \
    X(advise_in_precopy, PRECOPY, BEFORE, START, script_put_step(w, STEP_ADVISE), "enabled at the source but not here", FAILED) \
    X(advise_of_huge_pages, POSTCOPY, INSTEAD, ADVISE, ADVISE_OF(0x201000, 4096), "it needs matching RAM page sizes (s=201000 d=1000)", FAILED) \
    X(advise_of_no_pages, POSTCOPY, INSTEAD, ADVISE, ADVISE_OF(0, 4096), "page sizes are 0x0", FAILED) \
    X(advise_of_target_8192, POSTCOPY, INSTEAD, ADVISE, ADVISE_OF(4096, 8192), "target page has 8192 bytes", FAILED) \
    X(advise_twice, POSTCOPY, AFTER, ADVISE, script_put_step(w, STEP_ADVISE), "CMD_POSTCOPY_ADVISE in wrong postcopy state (1, ADVISE)", FAILED) \
    X(advise_after_discard, POSTCOPY, AFTER, DISCARD, script_put_step(w, STEP_ADVISE), "CMD_POSTCOPY_ADVISE in wrong postcopy state (2, DISCARD)", FAILED) \
    X(discard_before_advise, POSTCOPY, BEFORE, ADVISE, script_put_step(w, STEP_DISCARD), "CMD_POSTCOPY_RAM_DISCARD in wrong postcopy state (0, NONE)", FAILED) \
    X(discard_of_unknown_block, POSTCOPY, BEFORE, DISCARD, script_put_range(w, "foo", 0, 4096), "discard: there is no block 'foo'", FAILED) \
    X(discard_past_the_end, POSTCOPY, BEFORE, DISCARD, script_put_range(w, "ram0", AT_END(PEER_RAM0) - 4096, 8192), "not whole pages inside it", FAILED) \
    X(discard_at_the_end, POSTCOPY, BEFORE, DISCARD, script_put_range(w, "ram0", AT_END(PEER_RAM0), 4096), "not whole pages inside it", FAILED) \
    X(discard_around_2_64, POSTCOPY, BEFORE, DISCARD, script_put_range(w, "ram0", 8192, UINT64_MAX - 4095), "block", FAILED) \
    X(discard_start_in_page, POSTCOPY, BEFORE, DISCARD, DISCARD_OF(0, 0, 1, 4096), "POSTCOPY_RAM_DISCARD: range 0 of block ram0 is 0x1", FAILED) \
    X(discard_length_in_page, POSTCOPY, BEFORE, DISCARD, DISCARD_OF(0, 0, 0, 100), "POSTCOPY_RAM_DISCARD: range 0 of block ram0", FAILED) \
    X(discard_of_0, POSTCOPY, BEFORE, DISCARD, DISCARD_OF(0, 0, 0, 0), "POSTCOPY_RAM_DISCARD: range 0 of block ram0", FAILED) \
    X(discard_version_1, POSTCOPY, BEFORE, DISCARD, DISCARD_OF(1, 0, 0, 4096), "POSTCOPY_RAM_DISCARD: version is 1", FAILED) \
    X(discard_name_unended, POSTCOPY, BEFORE, DISCARD, DISCARD_OF(0, 1, 0, 4096), "byte behind block name ram0 is 0x01", FAILED) \
    X(discard_twice_of_a_page, POSTCOPY, BEFORE, DISCARD, script_put_step(w, STEP_DISCARD), "", COMPLETED) \
    X(eof_after_discard, POSTCOPY, BEFORE, PACKAGED, stream_put_u8(w, 0), "EOF after DISCARD", FAILED) \
    X(packaged_before_advise, POSTCOPY, BEFORE, ADVISE, PACKAGED_OF(100), "load package of 100 bytes: postcopy was not advised", FAILED) \
    X(packaged_in_precopy, PRECOPY, BEFORE, END, PACKAGED_OF(100), "postcopy was not advised", FAILED) \
    X(packaged_without_return_path, POSTCOPY, BEFORE, RETURN_PATH, (script_put_step(w, STEP_ADVISE), PACKAGED_OF(100)), "no return path", FAILED) \
    X(packaged_of_0, POSTCOPY, INSTEAD, PACKAGED, PACKAGED_OF(0), "load package of 0 bytes: its length is 0", FAILED) \
    X(packaged_of_4g, POSTCOPY, INSTEAD, PACKAGED, PACKAGED_OF(0xffffffff), "more device state than this guest can have", FAILED) \
    X(packaged_of_listen, POSTCOPY, INSTEAD, PACKAGED, PACKAGED_OF(5), "it ends before POSTCOPY_RUN", FAILED) \
    X(packaged_of_4, POSTCOPY, INSTEAD, PACKAGED, PACKAGED_OF(4), "it ends in the middle of an element", FAILED) \
    X(packaged_into_device, POSTCOPY, INSTEAD, PACKAGED, PACKAGED_OF(40), "load package: it ends", FAILED)

#define PACKAGE_LIST(X) \
    X(package_without_listen, POSTCOPY, INSTEAD, LISTEN, NOTHING, "does not begin with POSTCOPY_LISTEN", FAILED) \
    X(package_ping_first, POSTCOPY, BEFORE, LISTEN, stream_put_ping(w, 9), "does not begin with POSTCOPY_LISTEN", FAILED) \
    X(package_listen_twice, POSTCOPY, AFTER, LISTEN, script_put_raw_command(w, 4, 0), "load package: element 0x08, command 4, has no place", FAILED) \
    X(package_without_run, POSTCOPY, INSTEAD, RUN, NOTHING, "it ends before POSTCOPY_RUN", FAILED) \
    X(package_run_twice, POSTCOPY, AFTER, RUN, script_put_raw_command(w, 5, 0), "bytes follow POSTCOPY_RUN", FAILED) \
    X(package_byte_after_run, POSTCOPY, AFTER, RUN, stream_put_u8(w, 0), "bytes follow POSTCOPY_RUN", FAILED) \
    X(package_ping_after_run, POSTCOPY, AFTER, RUN, stream_put_ping(w, 3), "bytes follow POSTCOPY_RUN", FAILED) \
    X(package_eof, POSTCOPY, BEFORE, DEVICE, stream_put_u8(w, 0), "element 0x00", FAILED) \
    X(package_part, POSTCOPY, BEFORE, DEVICE, stream_put_part(w, STREAM_PART, 1), "element 0x02", FAILED) \
    X(package_start, POSTCOPY, BEFORE, DEVICE, script_put_step(w, STEP_START), "element 0x01", FAILED) \
    X(package_unknown_element, POSTCOPY, BEFORE, DEVICE, stream_put_u8(w, 0x55), "type is 0x55", FAILED) \
    X(package_advise, POSTCOPY, BEFORE, DEVICE, script_put_step(w, STEP_ADVISE), "command 3, has no place", FAILED) \
    X(package_discard, POSTCOPY, BEFORE, DEVICE, script_put_step(w, STEP_DISCARD), "command 6, has no place", FAILED) \
    X(package_in_package, POSTCOPY, BEFORE, DEVICE, PACKAGED_OF(5), "command 7, has no place", FAILED) \
    X(package_device_unknown, POSTCOPY, INSTEAD, DEVICE, script_put_device(w, "foo", 5, 5), "load device 'foo' 0: no such device", FAILED) \
    X(package_device_too_long, POSTCOPY, INSTEAD, DEVICE, script_put_device(w, PEER_DEVICE, PEER_STATE_LIMIT + 1, 9), "length of the device state is 4097", FAILED) \
    X(package_device_into_the_rest, POSTCOPY, INSTEAD, DEVICE, script_put_device(w, PEER_DEVICE, 4000, 5), "ends inside device '" PEER_DEVICE "'", FAILED) \
    X(package_device_shorter, POSTCOPY, INSTEAD, DEVICE, script_put_device(w, PEER_DEVICE, 3, 5), "decode footer", FAILED) \
    X(package_state_unknown, POSTCOPY, INSTEAD, GLOBAL, (stream_put_start(w, STREAM_FULL, 0xfff0, "globalstate", 0, 1), stream_put_be32(w, 200), ZEROES(100)), "decode section globalstate: length of the run state is 200", FAILED)

#define HANDED_OVER_LIST(X) \
    X(packaged_twice, POSTCOPY, BEFORE, PUSH, PACKAGED_OF(100), "PACKAGED came after the guest was handed over", PAUSED) \
    X(advise_after_run, POSTCOPY, BEFORE, PUSH, script_put_step(w, STEP_ADVISE), "POSTCOPY_ADVISE came after the guest was handed over", PAUSED) \
    X(discard_after_run, POSTCOPY, BEFORE, PUSH, script_put_step(w, STEP_DISCARD), "POSTCOPY_RAM_DISCARD came after the guest was handed over", PAUSED) \
    X(run_after_run, POSTCOPY, BEFORE, PUSH, script_put_raw_command(w, 5, 0), "POSTCOPY_RUN came after the guest was handed over", PAUSED) \
    X(device_after_run, POSTCOPY, BEFORE, PUSH, script_put_step(w, STEP_DEVICE), "device '" PEER_DEVICE "' came after the guest was handed over", PAUSED) \
    X(start_after_run, POSTCOPY, BEFORE, PUSH, script_put_step(w, STEP_START), "'ram' was started twice", PAUSED) \
    X(part_unknown_after_run, POSTCOPY, INSTEAD, PUSH, stream_put_part(w, STREAM_PART, 7), "section 7 was never started", PAUSED) \
    X(element_unknown_after_run, POSTCOPY, BEFORE, PUSH, stream_put_u8(w, 0x33), "type is 0x33", PAUSED) \
    X(eof_too_early, POSTCOPY, BEFORE, PUSH, stream_put_u8(w, 0), "16 pages never did", PAUSED) \
    X(push_missing_page, POSTCOPY, INSTEAD, PUSHED, script_put_zeroes(w, "ram0", SCRIPT_FIRST + 2, SCRIPT_END - 1), "1 pages never did", PAUSED) \
    X(push_past_the_end, POSTCOPY, BEFORE, PUSHED, ZERO("ram0", PEER_RAM0_PAGES), "lies past the end", PAUSED) \
    X(push_of_unknown_block, POSTCOPY, BEFORE, PUSHED, ZERO("foo", 0), "page of block 'foo'", PAUSED) \
    X(push_continue_first, PREEMPT, BEFORE, PUSHED, ZERO(NULL, SCRIPT_FIRST), "channel main continues a block before", PAUSED) \
    X(push_flags_unknown, POSTCOPY, BEFORE, PUSHED, HEAD(0x400), "flags 0x400", PAUSED) \
    X(push_flags_xbzrle, POSTCOPY, BEFORE, PUSHED, (HEAD(0x40), stream_put_name(w, "ram0"), stream_put_u8(w, 1), stream_put_be16(w, 1), stream_put_u8(w, 0)), "not supported in postcopy", PAUSED) \
    X(push_fill_not_0, POSTCOPY, BEFORE, PUSHED, (HEAD(0x20002), stream_put_name(w, "ram0"), stream_put_u8(w, 9)), "fill of ZERO", PAUSED) \
    X(push_of_received, POSTCOPY, BEFORE, PUSHED, ZERO("ram0", 0), "page 0x0 of block 'ram0' came again on channel main", PAUSED) \
    X(push_of_received_ram1, POSTCOPY, BEFORE, PUSHED, script_put_page(w, "ram1", 3), "page 0x3 of block 'ram1' came again on channel main", PAUSED) \
    X(push_twice, POSTCOPY, BEFORE, PUSHED, (ZERO("ram0", SCRIPT_FIRST + 5), ZERO(NULL, SCRIPT_FIRST + 9), ZERO(NULL, SCRIPT_FIRST + 5)), "page 0x15 of block 'ram0' came again on channel main", PAUSED) \
    X(push_twice_in_a_run, POSTCOPY, BEFORE, PUSHED, (ZERO("ram0", SCRIPT_FIRST + 5), ZERO(NULL, SCRIPT_FIRST + 5)), "page 0x15 of block 'ram0' came again on channel main", PAUSED) \
    X(push_runs, POSTCOPY, INSTEAD, PUSHED, (PAGE_RUN("ram0", SCRIPT_FIRST + 2, 2), ZERO_RUN(NULL, SCRIPT_FIRST + 4, 3), PAGE_RUN(NULL, SCRIPT_FIRST + 7, SCRIPT_END - SCRIPT_FIRST - 7)), "", COMPLETED) \
    X(push_run_of_received, POSTCOPY, BEFORE, PUSHED, PAGE_RUN("ram0", SCRIPT_FIRST - 1, 9), "page 0xf of block 'ram0' came again on channel main", PAUSED) \
    X(push_run_into_received, POSTCOPY, BEFORE, PUSHED, PAGE_RUN("ram0", SCRIPT_END - 8, 9), "page 0x20 of block 'ram0' came again on channel main", PAUSED) \
    X(push_zeros_into_received, POSTCOPY, BEFORE, PUSHED, ZERO_RUN("ram0", SCRIPT_END - 8, 9), "page 0x20 of block 'ram0' came again on channel main", PAUSED) \
    X(push_run_twice, POSTCOPY, BEFORE, PUSHED, (PAGE_RUN("ram0", SCRIPT_FIRST + 2, 9), PAGE_RUN(NULL, SCRIPT_FIRST + 10, 2)), "page 0x1a of block 'ram0' came again on channel main", PAUSED) \
    X(push_run_past_the_end, POSTCOPY, BEFORE, PUSHED, PAGE_RUN("ram0", PEER_RAM0_PAGES - 1, 2), "lies past the end", PAUSED) \
    X(urgent_run, PREEMPT, INSTEAD, URGENT, PAGE_RUN("ram0", SCRIPT_FIRST, 2), "", COMPLETED) \
    X(urgent_zeros, PREEMPT, INSTEAD, URGENT, ZERO_RUN("ram0", SCRIPT_FIRST, 2), "", COMPLETED) \
    X(urgent_run_of_received, PREEMPT, BEFORE, URGENT, PAGE_RUN("ram0", SCRIPT_FIRST - 1, 2), "page 0xf of block 'ram0' came again on channel urgent", PAUSED) \
    X(urgent_run_past_the_end, PREEMPT, BEFORE, URGENT, PAGE_RUN("ram1", PEER_RAM1_PAGES - 1, 2), "lies past the end of block 'ram1'", PAUSED) \
    X(urgent_run_of_0, PREEMPT, BEFORE, URGENT, (HEAD(0x408), stream_put_name(w, "ram0"), stream_put_be32(w, 0)), "in channel urgent is 0", PAUSED) \
    X(push_footer_of_other, POSTCOPY, BEFORE, PUSHED, (stream_put_eos(w), stream_put_footer(w, 3)), "section id is 3", PAUSED) \
    X(ping_after_run, POSTCOPY, BEFORE, PUSH, stream_put_ping(w, 77), "", COMPLETED) \
    X(urgent_too, PREEMPT, INSTEAD, URGENT, (ZERO("ram0", SCRIPT_FIRST), ZERO(NULL, SCRIPT_FIRST + 2)), "page 0x12 of block 'ram0' came again on channel", PAUSED) \
    X(main_too, PREEMPT, BEFORE, PUSHED, ZERO("ram0", SCRIPT_FIRST), "page 0x10 of block 'ram0' came again on channel", PAUSED) \
    X(urgent_continue_first, PREEMPT, BEFORE, URGENT, ZERO(NULL, SCRIPT_FIRST), "channel urgent continues a block before", PAUSED) \
    X(urgent_of_unknown_block, PREEMPT, BEFORE, URGENT, ZERO("foo", SCRIPT_FIRST), "channel urgent brings a page of block 'foo'", PAUSED) \
    X(urgent_past_the_end, PREEMPT, BEFORE, URGENT, ZERO("ram1", PEER_RAM1_PAGES), "lies past the end of block 'ram1'", PAUSED) \
    X(urgent_of_received, PREEMPT, BEFORE, URGENT, ZERO("ram0", 0), "came again on channel urgent", PAUSED) \
    X(urgent_twice, PREEMPT, BEFORE, URGENT, (ZERO("ram0", SCRIPT_FIRST + 1), ZERO(NULL, SCRIPT_FIRST + 1)), "came again on channel urgent", PAUSED) \
    X(urgent_flags_unknown, PREEMPT, BEFORE, URGENT, HEAD(0x800), "flags 0x800 in channel urgent", PAUSED) \
    X(urgent_mem_size, PREEMPT, BEFORE, URGENT, stream_put_mem_size(w, 4096), "flags 0x4 have no place on the urgent", PAUSED) \
    X(urgent_multifd_flush, PREEMPT, BEFORE, URGENT, stream_put_multifd_flush(w), "flags 0x200 have no place on the urgent", PAUSED) \
    X(urgent_header, PREEMPT, BEFORE, URGENT, stream_put_header(w), "in channel urgent", PAUSED) \
    X(urgent_fill_not_0, PREEMPT, BEFORE, URGENT, (HEAD(0x10002), stream_put_name(w, "ram0"), stream_put_u8(w, 9)), "in channel urgent is 0x09", PAUSED) \
    X(urgent_missing_page, PREEMPT, INSTEAD, URGENT, ZERO("ram0", SCRIPT_FIRST), "closed the urgent channel", PAUSED) \
    X(urgent_eos, PREEMPT, AFTER, URGENT, stream_put_eos(w), "", COMPLETED) \
    X(urgent_eos_first, PREEMPT, BEFORE, URGENT, stream_put_eos(w), "", COMPLETED)
/* clang-format on */
