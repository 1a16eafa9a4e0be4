/* SPDX-License-Identifier: MIT */
/* The assembled guest, build/guest.bin, as bytes of the program: guest_image, guest_image_bytes of them. */
        .section .rodata
        .balign 16
        .hidden guest_image
        .hidden guest_image_bytes
        .globl guest_image
        .globl guest_image_bytes
guest_image:
        .incbin GUEST_BIN
        .set image_bytes, . - guest_image
        .balign 4
guest_image_bytes:
        .long image_bytes
        .section .note.GNU-stack, "", @progbits
